import { sentence } from "../format";

/** A text of the server as a sentence; what it has in backticks is code. */
export function Words({ text }: { text: string }) {
  const parts = sentence(text).split("`");
  // A text does not change, so its parts are known by their places.
  // oxlint-disable-next-line react/no-array-index-key
  return parts.map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part));
}
