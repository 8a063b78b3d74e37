// The URL of a savefile of a capture.

export interface SavefileChoice {
  from: "live" | "follow" | "replay";
  format: "pcap" | "pcapng";
  /** A filter expression; empty for all packets. */
  filter: string;
  /** Whole numbers as they were typed; empty without a bound. */
  seconds: string;
  packets: string;
}

export function savefileUrl(
  capture: string,
  { from, format, filter, seconds, packets }: SavefileChoice,
): string {
  const query = new URLSearchParams();
  if (filter.trim() !== "") query.set("filter", filter.trim());
  if (/^\d+$/.test(seconds)) query.set("duration", `${seconds}s`);
  if (/^\d+$/.test(packets)) query.set("packets", packets);
  const tail = query.size > 0 ? `?${query}` : "";
  return `/captures/${encodeURIComponent(capture)}/${from}.${format}${tail}`;
}
