import type { Field, Form } from "../api/types";
import { datasetOf, fieldsFor, MINUTES, type Draft } from "../draft";
import { count, sentence } from "../format";
import { SettingField } from "./settingField";

export type Change = (part: Partial<Draft>) => void;

interface Props {
  form: Form;
  draft: Draft;
  change: Change;
  problemOf: (name: string) => string | undefined;
}

/** The settings of model and training: folded, for a first training needs none of them. */
export function SettingsPart({ form, draft, change, problemOf }: Props) {
  const chosen = datasetOf(draft, form);
  // Those of the data that people look at stand beside the data.
  const fields = fieldsFor(form, chosen).filter(
    ({ name, group, advanced }) => name !== MINUTES && (group !== chosen || advanced),
  );
  // What is wrong must be seen.
  const isPlain = (field: Field) => !field.advanced || problemOf(field.name) !== undefined;
  const plain = fields.filter(isPlain);
  const shared = { draft, change, problemOf };
  const shown = new Set(fields.map(({ name }) => name));
  const changed = Object.keys(draft.entered).filter((name) => shown.has(name));
  const reset = () => {
    const kept = Object.entries(draft.entered).filter(([name]) => !shown.has(name));
    change({ entered: Object.fromEntries(kept) });
  };
  const isWrong = fields.some(({ name }) => problemOf(name) !== undefined);
  return (
    <details
      className="card"
      open={changed.length > 0 || draft.preset !== "" || isWrong || undefined}
    >
      <summary>
        <h2>Settings</h2>{" "}
        <span className="remark">
          {changed.length ? count(changed.length, "change") : "of model and training; none needed"}
        </span>
      </summary>
      {changed.length > 0 && (
        <div className="actions start">
          <button type="button" className="plain small" onClick={reset}>
            Undo {count(changed.length, "change")}
          </button>
        </div>
      )}
      {form.presets.length > 1 && <PresetChoice form={form} draft={draft} change={change} />}
      <Groups fields={plain} {...shared} />
      {fields.length > plain.length && (
        <details className="group">
          <summary>{count(fields.length - plain.length, "advanced setting")}</summary>
          <Groups fields={fields.filter((field) => !isPlain(field))} {...shared} />
        </details>
      )}
    </details>
  );
}

const DEFAULT = "default";

function PresetChoice({ form, draft, change }: Omit<Props, "problemOf">) {
  const chosen = form.presets.find(({ name }) => name === (draft.preset || DEFAULT));
  const choose = (name: string) => {
    const { [MINUTES]: _, ...others } = draft.start;
    const settings = form.presets.find((each) => each.name === name)?.settings ?? {};
    // A preset that says for how many epochs to train is not cut short by the clock.
    const start = "train.epochs" in settings ? others : draft.start;
    change({ preset: name === DEFAULT ? "" : name, start });
  };
  return (
    <div className="field section">
      <label htmlFor="preset">Preset: values for several settings at once</label>
      <select
        id="preset"
        aria-describedby="preset-help"
        value={draft.preset || DEFAULT}
        onChange={(event) => choose(event.target.value)}
      >
        {form.presets.map(({ name }) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <p id="preset-help" className="remark" role="status">
        {chosen?.help} {chosen && presetWords(Object.keys(chosen.settings).length)}
      </p>
    </div>
  );
}

const presetWords = (changes: number) =>
  changes ? `It changes ${count(changes, "setting")}; you may change them further.` : "";

interface GroupsProps extends Omit<Props, "form"> {
  fields: Field[];
}

function Groups({ fields, draft, change, problemOf }: GroupsProps) {
  const groups = [...new Set(fields.map((field) => field.group))];
  return groups.map((group) => (
    <div key={group} className="group">
      <h3>{sentence(group)}</h3>
      <Fields
        fields={fields.filter((field) => field.group === group)}
        {...{ draft, change, problemOf }}
      />
    </div>
  ));
}

/** Some settings beside each other. */
export function Fields({ fields, draft, change, problemOf }: GroupsProps) {
  return (
    <div className="fields">
      {fields.map((field) => (
        <Setting
          key={field.name}
          field={field}
          draft={draft}
          change={change}
          problem={problemOf(field.name)}
        />
      ))}
    </div>
  );
}

interface SettingProps {
  field: Field;
  draft: Draft;
  change: Change;
  problem: string | undefined;
}

export function Setting({ field, draft, change, problem }: SettingProps) {
  return (
    <SettingField
      field={field}
      entered={draft.entered[field.name]}
      problem={problem}
      onChange={(entered) => {
        const { [field.name]: _, ...others } = draft.entered;
        change({ entered: entered === undefined ? others : { ...others, [field.name]: entered } });
      }}
    />
  );
}
