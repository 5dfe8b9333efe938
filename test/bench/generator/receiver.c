// Opens WebSockets and counts the frames that come on them, at the least cost: one epoll, one read for each arrival, no copy of
// a payload. Told what to do by lines on stdin; ends with it.
//
//   receiver <bytes>         frames with a payload of at least so many bytes are changes, shorter ones what a server says besides
//   open <port>\t<greetings>\t<path>\t<subprotocol>\t<message>…
//                            one socket more; the messages are sent when it is upgraded; after so many short frames it is ready
//   count                    → count <ready> <ended> <changes> <bytes>

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_HANDSHAKES = 128, READ_BYTES = 1 << 18, HEAD_BYTES = 10 };

struct client {
  int fd;
  /** of \r\n\r\n, seen; 4: upgraded */
  int seen;
  unsigned char head[HEAD_BYTES];
  int have;
  /** of the payload that is passing */
  uint64_t left;
  /** short frames to come until it is ready */
  int greetings;
  /** what is to be sent, separated by tabs */
  char *messages;
};

struct line {
  char *text;
  struct line *next;
};

static int poller, handshakes;
static uint64_t ready, ended, changes, bytes, least;
static struct line *first, *last;
static unsigned char input[READ_BYTES];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void say(const char *text) {
  size_t length = strlen(text);
  if (write(1, text, length) != (ssize_t)length) exit(1);
}

static void send_all(int fd, const void *data, size_t length) {
  if (send(fd, data, length, MSG_NOSIGNAL) != (ssize_t)length) fail("send");
}

/** One masked text frame; a mask of zeros leaves the text as it is. */
static void send_text(int fd, const char *text, size_t length) {
  unsigned char frame[1024] = {0x81};
  size_t at = 2;
  if (length > 900) fail("message too long");
  if (length < 126) frame[1] = 0x80 | length;
  else {
    frame[1] = 0x80 | 126;
    frame[2] = length >> 8;
    frame[3] = length & 255;
    at = 4;
  }
  memset(frame + at, 0, 4);
  memcpy(frame + at + 4, text, length);
  send_all(fd, frame, at + 4 + length);
}

static void open_one(char *text) {
  char *save, request[1024];
  const char *port = strtok_r(text, "\t", &save), *greetings = strtok_r(NULL, "\t", &save);
  const char *path = strtok_r(NULL, "\t", &save), *protocol = strtok_r(NULL, "\t", &save);
  if (!protocol) fail("open: too few words");
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0) fail("socket");
  if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  int named = strcmp(protocol, "-") != 0;
  snprintf(request, sizeof request,
           "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
           path, port, named ? "Sec-WebSocket-Protocol: " : "", named ? protocol : "", named ? "\r\n" : "");
  send_all(fd, request, strlen(request));
  struct client *client = calloc(1, sizeof *client);
  client->fd = fd;
  client->greetings = atoi(greetings);
  client->messages = save && *save ? strdup(save) : NULL;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
  handshakes++;
}

static void open_waiting(void) {
  while (first && handshakes < MAX_HANDSHAKES) {
    struct line *line = first;
    first = line->next;
    if (!first) last = NULL;
    open_one(line->text);
    free(line->text);
    free(line);
  }
}

/** Returns what of the arrival is behind the answer's head. */
static const unsigned char *pass_answer(struct client *client, const unsigned char *at, const unsigned char *end) {
  for (; at < end && client->seen < 4; at++) {
    if (client->have < HEAD_BYTES) client->head[client->have++] = *at;
    // "HTTP/1.1 1": an upgrade
    if (client->have == HEAD_BYTES && client->head[9] != '1') {
      fprintf(stderr, "an upgrade was refused: %.*s\n", (int)(end - at > 200 ? 200 : end - at), (const char *)at);
      exit(1);
    }
    client->seen = *at == "\r\n\r\n"[client->seen] ? client->seen + 1 : *at == '\r';
  }
  if (client->seen < 4) return at;
  client->have = 0;
  handshakes--;
  if (client->greetings == 0) ready++;
  if (client->messages) {
    char *save, *text = strtok_r(client->messages, "\t", &save);
    for (; text; text = strtok_r(NULL, "\t", &save)) send_text(client->fd, text, strlen(text));
    free(client->messages);
    client->messages = NULL;
  }
  return at;
}

static void count_frames(struct client *client, const unsigned char *at, const unsigned char *end) {
  while (at < end) {
    if (client->left > 0) {
      uint64_t step = (uint64_t)(end - at) < client->left ? (uint64_t)(end - at) : client->left;
      client->left -= step;
      at += step;
      continue;
    }
    client->head[client->have++] = *at++;
    if (client->have < 2) continue;
    int length = client->head[1] & 127, need = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (client->have < need) continue;
    uint64_t size = length;
    if (need > 2) {
      size = 0;
      for (int i = 2; i < need; i++) size = size << 8 | client->head[i];
    }
    client->have = 0;
    client->left = size;
    if ((client->head[0] & 15) != 1) continue;
    if (size >= least) {
      changes++;
      bytes += size;
    } else if (client->greetings > 0 && --client->greetings == 0) ready++;
  }
}

static void receive(struct client *client) {
  ssize_t length = read(client->fd, input, sizeof input);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) {
    ended++;
    close(client->fd);
    return;
  }
  const unsigned char *at = input, *end = input + length;
  if (client->seen < 4) at = pass_answer(client, at, end);
  count_frames(client, at, end);
}

static void obey(char *text) {
  char answer[256];
  if (strncmp(text, "open ", 5) == 0) {
    struct line *line = malloc(sizeof *line);
    line->text = strdup(text + 5);
    line->next = NULL;
    if (last) last->next = line;
    else first = line;
    last = line;
  } else if (strcmp(text, "count") == 0) {
    snprintf(answer, sizeof answer, "count %lu %lu %lu %lu\n", ready, ended, changes, bytes);
    say(answer);
  } else fail(text);
}

int main(int argc, char **argv) {
  least = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  poller = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
  epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
  static char text[1 << 16];
  size_t have = 0;
  for (;;) {
    int found = epoll_wait(poller, events, 512, -1);
    int told = 0;
    for (int i = 0; i < found; i++) {
      if (events[i].data.ptr) receive(events[i].data.ptr);
      else told = 1;
    }
    if (told) {
      ssize_t length = read(0, text + have, sizeof text - 1 - have);
      if (length <= 0) return 0;
      have += length;
      text[have] = 0;
      char *start = text, *end;
      while ((end = strchr(start, '\n'))) {
        *end = 0;
        obey(start);
        start = end + 1;
      }
      have -= start - text;
      memmove(text, start, have);
    }
    open_waiting();
  }
}
