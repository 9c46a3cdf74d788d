import { useQuery } from "@tanstack/react-query";
import { useEffect, useId, useState, type KeyboardEvent } from "react";

import * as queries from "../api/queries";
import type { Paper } from "../api/types";
import { ProblemNote } from "./problemNote";

const PAUSE_MS = 150; // after the last key, before a search

/** A search box for a paper, by the keys of WAI-ARIA's combobox. */
export function PaperSearch({
  model,
  onChoose,
}: {
  model: string;
  onChoose: (paper: Paper) => void;
}) {
  const id = useId();
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const words = useDelayed(text.trim(), PAUSE_MS);
  const found = useQuery(queries.papers(model, words));
  const papers = words ? (found.data ?? []) : [];
  const examples = words ? [] : (found.data ?? []);
  const isShown = isOpen && papers.length > 0;

  const choose = (paper: Paper) => {
    setOpen(false);
    setText("");
    onChoose(paper);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : papers.length - 1;
      setOpen(true);
      setActive((Math.max(active, event.key === "ArrowUp" ? 0 : -1) + step) % papers.length || 0);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const paper = papers[Math.max(active, 0)];
      if (isShown && paper) choose(paper);
    } else if (event.key === "Escape" && isShown) {
      event.preventDefault(); // or the words were gone too
      setOpen(false);
    }
  };
  const said = () => {
    if (found.isFetching && !found.data) return words ? "" : "Making the model ready…";
    if (!words || found.isFetching) return "";
    return papers.length ? `${papers.length} found` : `No paper found for “${words}”`;
  };

  return (
    <div className="field">
      <label htmlFor={id}>Words of its title, or its id</label>
      <div className="combobox">
        <input
          id={id}
          type="search"
          role="combobox"
          aria-expanded={isShown}
          aria-controls={`${id}-found`}
          aria-autocomplete="list"
          aria-activedescendant={isShown && active >= 0 ? `${id}-${active}` : undefined}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            setActive(-1);
            setOpen(true);
          }}
          onKeyDown={onKeyDown}
          onFocus={() => setOpen(true)}
          onBlur={() => setOpen(false)}
        />
        <ul id={`${id}-found`} role="listbox" aria-label="Papers found" hidden={!isShown}>
          {papers.map((paper, index) => (
            // The keys are those of the input, which keeps the focus.
            // oxlint-disable-next-line jsx-a11y/click-events-have-key-events
            <li
              key={paper.id}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === active}
              onPointerDown={(event) => event.preventDefault()}
              onClick={() => choose(paper)}
            >
              {paper.title || paper.id}
              <small>{[paper.id, paper.year].filter(Boolean).join(" · ")}</small>
            </li>
          ))}
        </ul>
      </div>
      <p className="remark" role="status">
        {said()}
      </p>
      {examples.length > 0 && (
        <div className="examples">
          <span className="remark">For example</span>
          {examples.map((paper) => (
            <button
              key={paper.id}
              type="button"
              className="plain small"
              onClick={() => choose(paper)}
            >
              {paper.title || paper.id}
            </button>
          ))}
        </div>
      )}
      <ProblemNote error={found.error} again={() => found.refetch()} />
    </div>
  );
}

/** Return a value once it has not changed for a while. */
export function useDelayed<T>(value: T, wait: number): T {
  const [delayed, setDelayed] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setDelayed(value), wait);
    return () => clearTimeout(timer);
  }, [value, wait]);
  return delayed;
}
