// Owns the order of rounds: the variants take turns, A B B A, so that what else the machine does weighs on all of them.

/** A round that measured something else than it was to: the generator was too busy, or something was lost. */
export class VoidRound extends Error {
  override readonly name = 'VoidRound';
}

export interface RoundsOptions<Variant extends string, Measured> {
  variants: readonly Variant[];
  rounds: number;
  /** runs of each variant that do not count (1) */
  warmUps?: number;
  /** throws VoidRound where the whole round is not to count */
  run: (variant: Variant) => Promise<Measured>;
  say: (text: string) => void;
}

/**
 * What each round measured, by variant; the i-th of all are of the same round. A void round is run again; more void ones than
 * `rounds` + 2 end the benchmark.
 */
export async function inRounds<Variant extends string, Measured>(
  options: RoundsOptions<Variant, Measured>,
): Promise<Record<Variant, Measured[]>> {
  const { variants, rounds, warmUps = 1, run, say } = options;
  const measured = Object.fromEntries(variants.map((variant) => [variant, []])) as unknown as Record<
    Variant,
    Measured[]
  >;
  let voids = 0;
  for (let round = -warmUps; round < rounds; ) {
    try {
      const one = new Map<Variant, Measured>();
      for (const variant of round % 2 === 0 ? variants : variants.toReversed()) one.set(variant, await run(variant));
      if (round >= 0) for (const [variant, value] of one) measured[variant].push(value);
      round++;
    } catch (error) {
      if (!(error instanceof VoidRound)) throw error;
      if (round < 0) round++;
      else if (++voids > rounds + 2) throw new Error(`too many void rounds: ${error.message}`, { cause: error });
      say(`  a round is void: ${error.message}`);
    }
  }
  return measured;
}
