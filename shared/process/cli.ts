/** Reads the options of a command. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/**
 * If an option is unknown, throws an error of one line that names the options. Positional arguments are errors too.
 * `args`: the arguments without the words that name the command.
 */
export function readFlags<const O extends NonNullable<ParseArgsConfig['options']>>(
  options: O,
  args = process.argv.slice(2),
) {
  const known = Object.keys(options).map((name) => `--${name}`);
  const rest = known.length === 0 ? 'this command takes none' : `known are ${known.join(', ')}`;
  try {
    const { values } = parseArgs({ args, options });
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
