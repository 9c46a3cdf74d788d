import type { Form, Upload } from "../api/types";
import type { Draft } from "../draft";
import { sentence } from "../format";
import { DropZone } from "./dropZone";
import { Options, Segments, Wrong } from "./options";

const KINDS: [Draft["own"], string][] = [
  ["", "Built in"],
  ["weights", "Your weights"],
  ["code", "Your code"],
];

interface Props {
  form: Form;
  draft: Draft;
  change: (part: Partial<Draft>) => void;
  problem: string | undefined;
}

/** The model: citeflow's own, started from weights of the user, or built by code of the user. */
export function ModelPart({ form, draft, change, problem }: Props) {
  // The content of a file says what it is, whatever it was offered as.
  const take = ({ id, kind }: Upload) => {
    if (kind === "weights") change({ own: kind, weights: id });
    if (kind === "code") change({ own: kind, code: id });
  };
  return (
    <fieldset className="card">
      <legend>
        <h2>Model</h2>
      </legend>
      <Segments
        name="own"
        label="Where the model comes from"
        segments={KINDS}
        chosen={draft.own}
        onChoose={(own) => change({ own })}
      />
      {draft.own === "" &&
        (form.models.length > 1 ? (
          <Options
            name="model"
            options={form.models}
            chosen={draft.model || form.models[0]?.name}
            onChoose={(model) => change({ model })}
          />
        ) : (
          <p className="remark">{form.models[0]?.help}</p>
        ))}
      {draft.own === "weights" && (
        <>
          <p className="remark">
            The training starts from them. The settings of the model, below, have to be those with
            which they were trained.
          </p>
          <DropZone
            kind="weights"
            help="A file of safetensors, such as model.safetensors of a run; 50 MB at most."
            chosen={draft.weights}
            onChoose={(weights) => change({ weights })}
            onMade={take}
          />
        </>
      )}
      {draft.own === "code" && form.code_problem !== "" && (
        <p className="wrong">{sentence(`code cannot run here: ${form.code_problem}`)}.</p>
      )}
      {draft.own === "code" && form.code_problem === "" && (
        <>
          <p className="remark">
            Nothing but the workers of the training runs it, away from everything else. Its model is
            measured and compared like any other; it can be neither asked nor deployed.
          </p>
          <DropZone
            kind="code"
            help="A Python file with a function build(settings) that returns a torch.nn.Module; 1 MB at most."
            chosen={draft.code}
            onChoose={(code) => change({ code })}
            onMade={take}
          />
        </>
      )}
      <Wrong problem={problem} />
    </fieldset>
  );
}
