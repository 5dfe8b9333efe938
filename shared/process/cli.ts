/** What stands behind a command: the options that it knows, and nothing else. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Throws in one line what is not known, and what is. Without `options`, nothing may stand there. */
export function readFlags<const O extends NonNullable<ParseArgsConfig['options']>>(options: O) {
  const known = Object.keys(options).map((name) => `--${name}`);
  const rest = known.length === 0 ? 'this command takes none' : `there are ${known.join(', ')}`;
  try {
    const { values } = parseArgs({ options });
    for (const [name, value] of Object.entries(values))
      if (typeof value === 'string' && value.trim() === '') throw new Error(`--${name} needs a value`);
    return values;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const [, named] = /'([^' ]+)/.exec(message) ?? [];
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION' || code === 'ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL')
      throw new Error(`unknown option ${named ?? ''}: ${rest}`, { cause: error });
    if (code === 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE')
      throw new Error(`${named ?? ''}: ${/not take an argument/.test(message) ? 'takes no value' : 'needs a value'}`, {
        cause: error,
      });
    throw error;
  }
}
