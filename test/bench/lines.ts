// Owns the programs beside a benchmark (generators, baselines): children that are told what to do by lines on stdin and answer by
// lines on stdout. They end with their stdin, so that none outlives the benchmark, whatever ends that.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const answerWithinMs = 60_000;

export class LineChild {
  readonly pid: number;
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  readonly #lines: string[] = [];
  #ended: string | undefined;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#process = child;
    this.pid = child.pid!;
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const waiting = this.#waiting.shift();
      if (waiting) waiting.resolve(line);
      else this.#lines.push(line);
    });
    // it may be gone when it is told something: its exit says so
    child.stdin!.on('error', () => {});
    this.#exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#ended = `${name} ended with ${signal ?? code}`;
        for (const { reject } of this.#waiting.splice(0)) reject(new Error(this.#ended));
        resolve();
      });
    });
  }

  static async start(name: string, command: string, args: string[], env = process.env): Promise<LineChild> {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    return new LineChild(name, child);
  }

  /** The same program in Node, from a file. */
  static node(name: string, file: string, args: string[] = [], env?: NodeJS.ProcessEnv): Promise<LineChild> {
    return LineChild.start(name, process.execPath, [file, ...args], { ...process.env, ...env });
  }

  tell(line: string): void {
    this.#process.stdin!.write(`${line}\n`);
  }

  /** The next line that it says. Each line is one answer, in the order of the questions. */
  async hear(): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return line;
    if (this.#ended !== undefined) throw new Error(this.#ended);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#waiting.push({ resolve, reject });
    const late = setTimeout(() => reject(new Error(`${this.#name} does not answer`)), answerWithinMs);
    return promise.finally(() => clearTimeout(late));
  }

  ask(line: string): Promise<string> {
    this.tell(line);
    return this.hear();
  }

  async stop(): Promise<void> {
    this.#process.stdin!.end();
    const late = setTimeout(() => this.#process.kill('SIGKILL'), 5_000);
    await this.#exited;
    clearTimeout(late);
  }
}
