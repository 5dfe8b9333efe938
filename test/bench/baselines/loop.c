// The floor: one write() a socket in a C loop. Told what the other baselines are told (told.ts), without channels; all changes of a
// flush are one write.
//
//   loop <bytes>    of a change's payload

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
static int sockets[100000];
static int count;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/** The request fits into one packet. */
static void accept_one(int server) {
  char request[4096];
  int fd = accept(server, NULL, NULL), one = 1;
  if (fd < 0) fail("accept");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (read(fd, request, sizeof request) <= 0) fail("read");
  if (write(fd, answer, sizeof answer - 1) != sizeof answer - 1) fail("write");
  sockets[count++] = fd;
}

static void run(int flushes, int every_ms, const char *buffer, size_t size) {
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (int i = 0; i < flushes; i++) {
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    for (int j = 0; j < count; j++)
      if (write(sockets[j], buffer, size) != (ssize_t)size) fail("write");
    next.tv_nsec += every_ms * 1000000L;
    next.tv_sec += next.tv_nsec / 1000000000L;
    next.tv_nsec %= 1000000000L;
  }
}

int main(int argc, char **argv) {
  size_t payload = argc > 1 ? strtoul(argv[1], NULL, 10) : 300;
  if (payload < 126 || payload > 65535) fail("a frame has a head of 4 bytes");
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  int server = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(server, (struct sockaddr *)&at, sizeof at) < 0 || listen(server, 4096) < 0) fail("listen");
  socklen_t length = sizeof at;
  getsockname(server, (struct sockaddr *)&at, &length);
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  struct pollfd polled[2] = {{.fd = 0, .events = POLLIN}, {.fd = server, .events = POLLIN}};
  char line[256];
  for (;;) {
    poll(polled, 2, -1);
    if (polled[1].revents) accept_one(server);
    if (!polled[0].revents) continue;
    ssize_t told = read(0, line, sizeof line - 1);
    if (told <= 0) return 0;
    line[told] = 0;
    int flushes, every_ms, changes;
    if (sscanf(line, "run %d %d %d", &flushes, &every_ms, &changes) != 3) fail(line);
    size_t frame = payload + 4;
    char *buffer = malloc(frame * changes);
    for (int i = 0; i < changes; i++) {
      char *start = buffer + i * frame;
      memset(start, 'x', frame);
      memcpy(start, (char[]){(char)0x81, 126, (char)(payload >> 8), (char)(payload & 255)}, 4);
    }
    run(flushes, every_ms, buffer, frame * changes);
    free(buffer);
    printf("done\n");
    fflush(stdout);
  }
}
