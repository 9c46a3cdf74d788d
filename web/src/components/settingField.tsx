import { useId } from "react";

import type { Field } from "../api/types";
import { limits } from "../draft";
import { sentence } from "../format";
import { Words } from "./words";

interface Props {
  field: Field;
  entered: string | boolean | undefined;
  /** What the server has against the value. */
  problem?: string;
  onChange: (entered: string | boolean | undefined) => void;
}

/** One setting with its help and limits; without an entry it has its default. */
export function SettingField({ field, entered, problem, onChange }: Props) {
  const id = useId();
  const described = {
    "aria-describedby": `${id}-help`,
    "aria-invalid": problem ? true : undefined,
  };
  const text = String(entered ?? field.default ?? "");
  const limit = limits(field);
  return (
    <div className={entered === undefined ? "field" : "field is-changed"}>
      {field.type === "bool" ? (
        <label className="tick">
          <input
            type="checkbox"
            checked={text === "true"}
            onChange={(event) => onChange(event.target.checked)}
            {...described}
          />
          {sentence(field.label)}
        </label>
      ) : (
        <>
          <label htmlFor={id}>{sentence(field.label)}</label>
          {field.type === "choice" ? (
            <select id={id} value={text} onChange={(e) => onChange(e.target.value)} {...described}>
              {field.choices.map((choice) => (
                <option key={choice}>{choice}</option>
              ))}
            </select>
          ) : (
            <input
              id={id}
              {...inputOf(field)}
              value={entered === undefined ? text : String(entered)}
              onChange={(event) => onChange(event.target.value)}
              {...described}
            />
          )}
        </>
      )}
      <p id={`${id}-help`} className="remark">
        <Words text={field.help} /> {limit && <span className="limits">{sentence(limit)}.</span>}
        {problem && <span className="wrong">{sentence(problem)}.</span>}
        {entered !== undefined && (
          <button type="button" className="link" onClick={() => onChange(undefined)}>
            Back to {String(field.default)}
          </button>
        )}
      </p>
    </div>
  );
}

function inputOf(field: Field) {
  if (field.type === "text") return { type: "text", spellCheck: false };
  return {
    type: "number",
    inputMode: field.type === "integer" ? ("numeric" as const) : ("decimal" as const),
    step: field.type === "integer" ? 1 : "any",
    min: field.minimum ?? field.exclusive_minimum ?? undefined,
    max: field.maximum ?? field.exclusive_maximum ?? undefined,
    required: true,
  };
}
