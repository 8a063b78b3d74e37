// Numbers and times as people read them. Every function takes what a server may have sent wrongly.

/** Microseconds since the Unix epoch, of a time of the API; `null` if it is none. */
export function microseconds(time: string | null | undefined): number | null {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/.exec(time ?? "");
  if (!parts) return null;
  const seconds = Date.parse(`${parts[1]}Z`);
  if (Number.isNaN(seconds)) return null;
  return seconds * 1000 + Math.floor(Number((parts[2] ?? "").padEnd(9, "0")) / 1000);
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** `1234567` as `1,234,567`. */
export const count = (value: number): string => grouped.format(value);

/** Three digits and a prefix of the steps, such as `1.23 k`. */
function scaled(value: number, step: number, prefixes: readonly string[], unit: string): string {
  let power = 0;
  let rest = value;
  // From 999.5 on it would be written as 1000.
  while (rest >= step * 0.9995 && power < prefixes.length - 1) {
    rest /= step;
    power += 1;
  }
  const digits = power === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  return `${rest.toFixed(digits)} ${prefixes[power]}${unit}`.trimEnd();
}

/** Bytes, in steps of 1024. */
export const bytes = (value: number): string => scaled(value, 1024, ["", "Ki", "Mi", "Gi", "Ti"], "B");

/** Something in a second, in steps of 1000; `unit` such as `b/s`. */
export const rate = (value: number, unit: string): string =>
  scaled(value, 1000, ["", "k", "M", "G", "T"], unit);

/** A count where there is little room: `1.23 M`. */
export const shortCount = (value: number): string => scaled(value, 1000, ["", "k", "M", "G", "T"], "");

/** Packets in a second. */
export const packetRate = (value: number): string => `${shortCount(value)} packets/s`;

/** A span of time given in microseconds. */
export function duration(us: number | null): string {
  if (us === null) return "–";
  if (us < 1000) return `${us.toFixed(0)} µs`;
  if (us < 999_500) return `${(us / 1000).toFixed(us < 99_950 ? (us < 9995 ? 2 : 1) : 0)} ms`;
  const seconds = us / 1e6;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const two = (value: number): string => String(value).padStart(2, "0");

/** The time of day on this machine, with milliseconds, of microseconds since the Unix epoch. */
export function clock(us: number | null): string {
  if (us === null) return "–";
  const time = new Date(us / 1000);
  if (Number.isNaN(time.getTime())) return "–";
  const milliseconds = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${milliseconds}`;
}

/** Day and time of day on this machine, with microseconds. */
export function dateAndClock(us: number | null): string {
  if (us === null) return "–";
  const time = new Date(us / 1000);
  if (Number.isNaN(time.getTime())) return "–";
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(us)}${microsecondDigits(us)}`;
}

/** The last three of the six digits of a fraction. */
const microsecondDigits = (us: number): string => String(((us % 1000) + 1000) % 1000).padStart(3, "0");

/** An address and a port, `[::1]:80` for IPv6. */
export const endpoint = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

/** `1 packet`, `2 packets`. */
export const plural = (value: number, one: string, many = `${one}s`): string =>
  `${count(value)} ${value === 1 ? one : many}`;
