// Owns the Prometheus of tests, and promtool: the installed programs, else programs that are unpacked from the Debian
// package. What must stay true:
// - Prometheus stores samples in a folder that `stop` removes;
// - Prometheus runs the project's rules unchanged.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { packageProgram } from './packages.ts';
import { accepts, type Child, findProgram, onFreePort, startChild } from './process.ts';

export interface PrometheusOptions {
  /** The scraped addresses of each job: `{ gateway: ['127.0.0.1:8001'] }`. */
  targets: Record<string, string[]>;
  ruleFiles?: string[];
  scrapeInterval?: string;
}

export interface LocalPrometheus {
  url: string;
  /** Ends Prometheus and removes its data. May be called several times. */
  stop(): Promise<void>;
}

/** Starts Prometheus. Resolves when it answers queries. The first scrapes may still be running. */
export async function startPrometheus(options: PrometheusOptions): Promise<LocalPrometheus> {
  const program = await findOf('prometheus');
  const folder = await mkdtemp(join(tmpdir(), 'plank-prometheus-'));
  const interval = options.scrapeInterval ?? '1s';
  const config = {
    global: { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval },
    rule_files: options.ruleFiles ?? [],
    scrape_configs: Object.entries(options.targets).map(([job, targets]) => ({
      job_name: job,
      static_configs: [{ targets }],
    })),
  };
  let child!: Child;
  const port = await onFreePort(undefined, async (port) => {
    const configFile = join(folder, 'prometheus.yml');
    // every JSON text is YAML too
    await writeFile(configFile, JSON.stringify(config));
    child = await startChild({
      name: 'prometheus',
      command: program,
      args: [
        `--config.file=${configFile}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      logFile: join(folder, 'prometheus.log'),
    });
    const ask = 'GET /-/ready HTTP/1.0\r\n\r\n';
    await child.waitUntil(() => accepts(port, ask, 'HTTP/1.0 200'), 20_000);
    return port;
  }).catch(async (error) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      await child.stop('SIGTERM', 5_000);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The path of promtool, which checks rules and their tests. If there is no promtool, throws an error with advice. */
export function findPromtool(): Promise<string> {
  return findOf('promtool');
}

async function findOf(name: 'prometheus' | 'promtool'): Promise<string> {
  const installed = findProgram(name);
  if (installed !== undefined) return installed;
  try {
    const script = await packageProgram({ packages: ['prometheus'], program: 'usr/bin/prometheus' });
    // Both programs are in one package and written in Go, so they need only the system's libraries and no script.
    return join(dirname(script), 'root/usr/bin', name);
  } catch (cause) {
    throw new Error(
      `there is no ${name} on this system (${(cause as Error).message}): install Prometheus, for example by "apt-get install prometheus" or "brew install prometheus"`,
      { cause },
    );
  }
}
