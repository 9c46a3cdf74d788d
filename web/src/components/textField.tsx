import { useId, type ComponentProps } from "react";

import { sentence } from "../format";

interface Props extends Omit<ComponentProps<"input">, "id" | "onChange"> {
  label: string;
  help?: string;
  problem?: string;
  onText: (text: string) => void;
}

/** An input with its label, its help, and what is wrong with it. */
export function TextField({ label, help, problem, onText, ...input }: Props) {
  const id = useId();
  const isDescribed = help || problem;
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        aria-describedby={isDescribed ? `${id}-help` : undefined}
        aria-invalid={problem ? true : undefined}
        onChange={(event) => onText(event.target.value)}
        {...input}
      />
      {isDescribed && (
        <p id={`${id}-help`} className="remark">
          {help} {problem && <span className="wrong">{sentence(problem)}.</span>}
        </p>
      )}
    </div>
  );
}
