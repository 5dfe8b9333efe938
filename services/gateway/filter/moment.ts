/**
 * Turns dates and timestamps of Postgres into numbers with the same order. A date becomes the number of
 * days since 1970, and a timestamp becomes the number of microseconds since 1970. Both numbers are exact.
 * The infinities stay infinities. Dates range from 4714 BC to the year 5874897, timestamps from 4714 BC
 * to the year 294276. This file reads the texts that to_json renders and those that filters may contain.
 */

export type TimeType = 'date' | 'timestamp' | 'timestamptz';
/** days (number) for a date, microseconds (bigint) for a timestamp; the infinities are numbers for both */
export type Moment = number | bigint;

const microsPerDay = 86_400_000_000n;

const day = String.raw`(\d{4,7})-(\d\d)-(\d\d)`;
const clock = String.raw`T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?`;
const patterns = {
  date: new RegExp(`^${day}()()()()()( BC)?$`),
  timestamp: new RegExp(`^${day}${clock}()( BC)?$`),
  timestamptz: new RegExp(`^${day}${clock}(Z|[+-]\\d\\d(?::?\\d\\d)?)( BC)?$`),
};

const firstDay = daysOf(-4713, 11, 24)!;
const endDay = daysOf(294_277, 1, 1)!;
const endDayOfDates = daysOf(5_874_898, 1, 1)!;

/** Undefined if the text is not a date or timestamp of this type, or is outside Postgres' range. */
export function parseMoment(type: TimeType, text: string): Moment | undefined {
  if (text === 'infinity') return Infinity;
  if (text === '-infinity') return -Infinity;
  const match = patterns[type].exec(text);
  if (!match) return undefined;
  const [, y, month, date, hour, minute, second, fraction, offset, bc] = match;
  const days = daysOf(bc === undefined ? Number(y) : 1 - Number(y), Number(month), Number(date));
  if (days === undefined || Number(y) === 0) return undefined;
  if (type === 'date') return days >= firstDay && days < endDayOfDates ? days : undefined;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second ?? 0) > 59) return undefined;
  const minutes = offsetOf(offset!);
  if (minutes === undefined) return undefined;
  const seconds = (Number(hour) * 60 + Number(minute) - minutes) * 60 + Number(second ?? 0);
  const micros = BigInt(days) * microsPerDay + BigInt(seconds * 1_000_000 + Number((fraction ?? '').padEnd(6, '0')));
  return micros >= BigInt(firstDay) * microsPerDay && micros < BigInt(endDay) * microsPerDay ? micros : undefined;
}

/** The moment as a text that Postgres reads. Equal moments give equal texts. */
export function formatMoment(type: TimeType, moment: Moment): string {
  if (moment === Infinity) return 'infinity';
  if (moment === -Infinity) return '-infinity';
  if (type === 'date') return textOfDay(Number(moment)).join('');
  const micros = BigInt(moment);
  const ofDay = Number(((micros % microsPerDay) + microsPerDay) % microsPerDay);
  const [date, era] = textOfDay(Number((micros - BigInt(ofDay)) / microsPerDay));
  const seconds = Math.floor(ofDay / 1_000_000);
  const time = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map((part) => pad(part, 2));
  return `${date}T${time.join(':')}.${pad(ofDay % 1_000_000, 6)}${type === 'timestamptz' ? 'Z' : ''}${era}`;
}

const pad = (number: number, length: number): string => String(number).padStart(length, '0');

/** Minutes east of Greenwich. Postgres accepts only offsets below 16 hours. */
function offsetOf(text: string): number | undefined {
  if (text === '' || text === 'Z') return 0;
  const [hours, minutes] = [Number(text.slice(1, 3)), Number(text.slice(3).replace(':', ''))];
  if (hours > 15 || minutes > 59) return undefined;
  return (text.startsWith('-') ? -1 : 1) * (hours * 60 + minutes);
}

// The next two algorithms let a year begin in March, so that a leap day is the last day of its year, and
// count in eras of 400 years. They are by Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
// Like Postgres, they extend the Gregorian calendar to the time before it began.

/** Days since 1970; undefined if there is no such day. Year 0 is 1 BC. */
function daysOf(year: number, month: number, date: number): number | undefined {
  if (month < 1 || month > 12 || date < 1 || date > 31) return undefined;
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + date - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  const days = era * 146_097 + dayOfEra - 719_468;
  return dateOf(days).date === date ? days : undefined;
}

function dateOf(days: number): { year: number; month: number; date: number } {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const fromMarch = Math.floor((5 * dayOfYear + 2) / 153);
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    date: dayOfYear - Math.floor((153 * fromMarch + 2) / 5) + 1,
  };
}

function textOfDay(days: number): [date: string, era: string] {
  const { year, month, date } = dateOf(days);
  return [`${pad(year > 0 ? year : 1 - year, 4)}-${pad(month, 2)}-${pad(date, 2)}`, year > 0 ? '' : ' BC'];
}
