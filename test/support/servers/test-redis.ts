// Owns the source of the tests' shared Redis: PLANK_TEST_REDIS_URL, else a container, else a program of this system or of a
// Debian package. What must stay true: a source that does not work costs seconds and leads to the next. When none works, the
// tests fail with one line that says what to do; they are never skipped.

import { setTimeout as delay } from 'node:timers/promises';
import { startRedis } from '#deploy/local/redis.ts';

const image = 'redis:7-alpine';
const command = ['redis-server', '--save', '', '--appendonly', 'no', '--maxmemory-policy', 'noeviction'];

export interface TestRedis {
  url: string;
  stop(): Promise<void>;
}

export async function startTestRedis(): Promise<TestRedis> {
  const given = process.env.PLANK_TEST_REDIS_URL;
  if (given) return { url: given, stop: async () => {} };
  const failures: string[] = [];
  for (const start of [startContainer, () => startRedis()]) {
    try {
      return await start();
    } catch (error) {
      failures.push(error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error));
    }
  }
  throw new Error(
    `no Redis for the tests: start Docker, install redis-server, or set PLANK_TEST_REDIS_URL (tried: ${failures.join('; ')})`,
  );
}

async function startContainer(): Promise<TestRedis> {
  const { GenericContainer, ImageName, Wait, getContainerRuntimeClient } = await import('testcontainers');
  const client = await within(3_000, 'no container engine answers', getContainerRuntimeClient());
  const name = ImageName.fromString(image);
  if (!(await within(3_000, 'the container engine is silent', client.image.exists(name)))) {
    await within(60_000, `${image} could not be pulled`, client.image.pull(name));
  }
  const start = () =>
    new GenericContainer(image)
      .withCommand(command)
      .withExposedPorts(6379)
      .withWaitStrategy(Wait.forLogMessage(/Ready to accept connections/))
      .withStartupTimeout(20_000)
      .start();
  // Testcontainers' reaper ends the container if this process is killed. It needs an image of its own, which may be missing.
  const container = await start().catch(() => {
    process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
    return start();
  });
  return {
    url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`,
    stop: async () => {
      await container.stop();
    },
  };
}

async function within<T>(ms: number, problem: string, promise: Promise<T>): Promise<T> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      promise,
      delay(ms, undefined, { signal: timer.signal }).then(() => Promise.reject(new Error(problem))),
    ]);
  } finally {
    timer.abort();
  }
}
