// Owns how a benchmark asks its own processes: a question is a line of JSON, and so is its answer.

import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LineChild } from './lines.ts';

/** A process of a program in this folder. */
export class BenchChild<Question extends object, Answer> {
  readonly #lines: LineChild;
  /** where it listens, if it does */
  readonly port: number;

  private constructor(lines: LineChild, port: number) {
    this.#lines = lines;
    this.port = port;
  }

  /** Resolves when the program says that it is ready. */
  static async start<Question extends object, Answer>(
    program: string,
    args: string[] = [],
  ): Promise<BenchChild<Question, Answer>> {
    const lines = await LineChild.node(program, join(import.meta.dirname, program), args);
    return new BenchChild<Question, Answer>(lines, Number(await lines.hear()));
  }

  get pid(): number {
    return this.#lines.pid;
  }

  /** One question at a time, to be answered within a minute. */
  async ask(question: Question): Promise<Answer> {
    const answer = JSON.parse(await this.#lines.ask(JSON.stringify(question))) as
      | { answer: Answer }
      | { error: string };
    if ('error' in answer) throw new Error(answer.error);
    return answer.answer;
  }

  stop(): Promise<void> {
    return this.#lines.stop();
  }
}

/** The child's side: answers questions, and ends with its parent. */
export function serve(port: number, work: (question: never) => Promise<unknown> = async () => null): void {
  const say = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      work(JSON.parse(line) as never).then(
        (answer) => say({ answer }),
        (error: Error) => say({ error: String(error.stack) }),
      );
    })
    .on('close', () => process.exit());
  say(port);
}
