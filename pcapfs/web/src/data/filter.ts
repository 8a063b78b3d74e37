// The language of the filters. Words are separated by spaces and all of them must match: `word` is
// found in any text of the row, `name:value` in one field, `-word` must not match. Quotes keep spaces.

/** A field of rows that `name:value` may ask for: makes the test of a value, which is in lower case. */
export type FilterField<Row> = (value: string) => (row: Row) => boolean;

export interface FilterFields<Row> {
  /** Lower-case text in which a bare word is searched. */
  text: (row: Row) => string;
  fields: Readonly<Record<string, FilterField<Row>>>;
}

interface FilterTerm {
  not: boolean;
  field: string | null;
  value: string;
}

export interface ParsedFilter<Row> {
  accept: (row: Row) => boolean;
  /** Whether all rows match. */
  empty: boolean;
  /** The name before a colon that is no field; the word is searched as text. Null without one. */
  unknown: string | null;
}

const WORD = /(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))/giy;

function terms(text: string): FilterTerm[] {
  const found: FilterTerm[] = [];
  for (const part of text.matchAll(/(?:[^\s"]|"[^"]*"?)+/g)) {
    WORD.lastIndex = 0;
    const match = WORD.exec(part[0]);
    const value = (match?.[3] ?? match?.[4] ?? part[0]).toLowerCase();
    if (value === "" || value === "-") continue;
    found.push({ not: match?.[1] === "-", field: match?.[2]?.toLowerCase() ?? null, value });
  }
  return found;
}

export function parseFilter<Row>(
  text: string,
  { text: textOf, fields }: FilterFields<Row>,
): ParsedFilter<Row> {
  let unknown: string | null = null;
  const tests = terms(text).map(({ not, field, value }) => {
    const known = field !== null && Object.hasOwn(fields, field) ? fields[field] : undefined;
    if (field !== null && !known) unknown ??= field;
    const word = field === null || known ? value : `${field}:${value}`;
    const test = known ? known(value) : (row: Row): boolean => textOf(row).includes(word);
    return not ? (row: Row): boolean => !test(row) : test;
  });
  const accept =
    tests.length === 1 && tests[0] ? tests[0] : (row: Row): boolean => tests.every((test) => test(row));
  return { accept, empty: tests.length === 0, unknown };
}

/** The test of a number: `443`, `>1000`, `<=5k` or `10-20`; anything else matches nothing. */
export function numberTest(wanted: string): (actual: number | null) => boolean {
  const parts = /^(>=|<=|>|<|=)?([\d.]+)([kmg]?)(?:-([\d.]+)([kmg]?))?$/.exec(wanted);
  if (!parts) return () => false;
  const first = scaledNumber(parts[2], parts[3]);
  if (parts[4] !== undefined) {
    const last = scaledNumber(parts[4], parts[5]);
    return (actual) => parts[1] === undefined && actual !== null && actual >= first && actual <= last;
  }
  switch (parts[1]) {
    case ">":
      return (actual) => actual !== null && actual > first;
    case ">=":
      return (actual) => actual !== null && actual >= first;
    case "<":
      return (actual) => actual !== null && actual < first;
    case "<=":
      return (actual) => actual !== null && actual <= first;
    default:
      return (actual) => actual === first;
  }
}

/** A field that is a number. */
export function numberField<Row>(of: (row: Row) => number | null): FilterField<Row> {
  return (value) => {
    const test = numberTest(value);
    return (row) => test(of(row));
  };
}

function scaledNumber(digits: string | undefined, prefix: string | undefined): number {
  const scale = { k: 1e3, m: 1e6, g: 1e9 }[prefix ?? ""] ?? 1;
  return Number(digits) * scale;
}
