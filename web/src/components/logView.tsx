import { useEffect, useMemo, useRef, useState } from "react";

import type { LogLine } from "../api/types";
import { count } from "../format";

const ALL = "all";
const NEAR_END = 24; // px, within which the view counts as being at the end

/** The log of a run, of all or of one rank; it follows its end until one scrolls up. */
export function LogView({ log }: { log: LogLine[] }) {
  const [chosen, setChosen] = useState(ALL);
  const [isFollowing, setFollowing] = useState(true);
  const view = useRef<HTMLPreElement>(null);
  const ranks = useMemo(() => ranksOf(log), [log]);
  const lines = chosen === ALL ? log : log.filter((each) => String(each.rank) === chosen);
  const last = lines.at(-1)?.n;

  useEffect(() => {
    if (isFollowing) view.current?.scrollTo({ top: view.current.scrollHeight });
  }, [isFollowing, chosen, last]);

  const onScroll = () => {
    const element = view.current;
    if (!element) return;
    const { scrollHeight, scrollTop, clientHeight } = element;
    setFollowing(scrollHeight - scrollTop - clientHeight < NEAR_END);
  };

  return (
    <>
      <div className="log-head">
        {ranks.length > 1 && <RankChoice ranks={ranks} chosen={chosen} onChoose={setChosen} />}
        <span className="remark">{count(lines.length, "line")}</span>
        <label className="tick">
          <input
            type="checkbox"
            checked={isFollowing}
            onChange={(event) => setFollowing(event.target.checked)}
          />
          Follow
        </label>
      </div>
      {/* What scrolls must be reachable by keyboard. */}
      <pre
        ref={view}
        className="log"
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={chosen === ALL ? "Log" : `Log of rank ${chosen}`}
        onScroll={onScroll}
      >
        {lines.map((each) => each.line).join("\n")}
      </pre>
    </>
  );
}

interface ChoiceProps {
  ranks: number[];
  chosen: string;
  onChoose: (chosen: string) => void;
}

function RankChoice({ ranks, chosen, onChoose }: ChoiceProps) {
  return (
    <fieldset className="segments">
      <legend className="unseen">Lines of</legend>
      {[ALL, ...ranks.map(String)].map((each) => (
        <label key={each}>
          <input
            type="radio"
            name="rank"
            checked={each === chosen}
            onChange={() => onChoose(each)}
          />
          {each === ALL ? "all" : `rank ${each}`}
        </label>
      ))}
    </fieldset>
  );
}

function ranksOf(log: LogLine[]): number[] {
  const ranks = new Set(log.map((each) => each.rank).filter((rank) => rank !== null));
  return [...ranks].toSorted((a, b) => a - b);
}
