import { useState } from "react";

/** Copies a text; there is none where the browser has no clipboard, as on plain http. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [isDone, setDone] = useState(false);
  if (!navigator.clipboard) return null;
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <button type="button" className="plain small" onClick={copy}>
      {isDone ? "Copied" : "Copy"} <span className="unseen">{what}</span>
    </button>
  );
}
