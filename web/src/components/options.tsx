import { sentence } from "../format";

interface OptionsProps<T> {
  name: string;
  options: { name: T; label?: string; help: string }[];
  chosen: T | undefined;
  onChoose: (name: T) => void;
}

/** Options with a sentence each, of which one is chosen. */
export function Options<T extends string>(props: OptionsProps<T>) {
  const { name: group, options, chosen, onChoose } = props;
  return (
    <div className="options">
      {options.map(({ name, label, help }) => (
        <label key={name} className="option">
          <input
            type="radio"
            name={group}
            checked={chosen === name}
            onChange={() => onChoose(name)}
          />
          <span>
            <b>{label ?? name}</b>
            <small>{help}</small>
          </span>
        </label>
      ))}
    </div>
  );
}

interface SegmentsProps<T> {
  name: string;
  label: string;
  segments: [T, string][];
  chosen: T;
  onChoose: (value: T) => void;
}

/** Options of a few words each, side by side. */
export function Segments<T extends string>(props: SegmentsProps<T>) {
  return (
    <div className="segments" role="radiogroup" aria-label={props.label}>
      {props.segments.map(([value, words]) => (
        <label key={value}>
          <input
            type="radio"
            name={props.name}
            checked={props.chosen === value}
            onChange={() => props.onChoose(value)}
          />
          {words}
        </label>
      ))}
    </div>
  );
}

/** What is wrong with the choice, as the server has said. */
export function Wrong({ problem }: { problem: string | undefined }) {
  return problem && <p className="wrong">{sentence(problem)}.</p>;
}
