// Server-sent events out of the bytes of an answer, as in "Interpreting an event stream" of the HTML
// standard. EventSource has no way to send Last-Event-ID after a page was hidden, and does not say
// why a server refuses, so the page reads the stream by itself.

export interface ServerEvent {
  /** `message` where the server names none. */
  type: string;
  data: string;
  /** The newest `id`, of this event or of one before. */
  id: string;
}

/** Characters of an event at most. A line of a log is at most 64 KiB; what is longer is a mistake. */
const MAX_EVENT_LENGTH = 4 << 20;

/** Takes text in pieces of any size, and returns the events that are whole. */
export class EventParser {
  /** The newest `id` of an event that was whole; to be sent as `Last-Event-ID`. */
  lastId: string;
  #id: string;
  #rest = "";
  #type = "";
  #data: string[] = [];
  #length = 0;
  #afterReturn = false;

  constructor(lastId = "") {
    this.lastId = lastId;
    this.#id = lastId;
  }

  push(text: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    // The line feed of a CR LF that the last piece ended within.
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") this.#afterReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#take(line, events);
    if (this.#rest.length + this.#length > MAX_EVENT_LENGTH) {
      throw new Error("the server sent an event that is too long");
    }
    return events;
  }

  #take(line: string, events: ServerEvent[]): void {
    if (line === "") {
      this.lastId = this.#id;
      if (this.#data.length > 0) {
        events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.lastId });
      }
      this.#type = "";
      this.#data = [];
      this.#length = 0;
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") {
      this.#data.push(value);
      this.#length += value.length;
    } else if (field === "event") {
      this.#type = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.#id = value;
    }
  }
}
