import type { Run } from "../api/types";
import { duration, percent, sentence, whole } from "../format";
import { Bar } from "./meter";

/** The stages of a run, in their order, and what each is called here. */
const STAGES: [string, string][] = [
  ["download", "Getting the data"],
  ["preprocess", "Preparing"],
  ["train", "Training"],
  ["evaluate", "Measuring"],
  ["publish", "Writing the report"],
];

const nameOf = (stage: string) => STAGES.find(([key]) => key === stage)?.[1] ?? sentence(stage);

/** Which stage a run is at, what it does there, for how long, and how far it is where it counts. */
export function Progress({ progress }: { progress: Run["progress"] }) {
  const at = STAGES.findIndex(([stage]) => stage === progress?.stage);
  return (
    <div className="progress">
      <ol className="stages" aria-label="Stages">
        {STAGES.map(([stage, words], index) => (
          <li
            key={stage}
            className={index < at ? "is-done" : ""}
            aria-current={index === at ? "step" : undefined}
          >
            {words}
            {index < at && <span className="unseen"> (done)</span>}
          </li>
        ))}
      </ol>
      {progress ? <Doing progress={progress} /> : <p className="remark">It is about to begin.</p>}
    </div>
  );
}

function Doing({ progress }: { progress: NonNullable<Run["progress"]> }) {
  const { stage, fraction = null, seconds, seconds_left: left = null } = progress;
  return (
    <>
      <span>
        {doingOf(progress)}
        {seconds > 0 && ` · for ${duration(seconds)}`}
        {left !== null && fraction !== null && fraction > 0 && ` · ${duration(left)} left`}
      </span>
      {fraction !== null && (
        <>
          <span>{percent(fraction)}</span>
          <Bar
            label="Progress"
            share={fraction}
            words={`${nameOf(stage)}, ${percent(fraction)}`}
            as="progressbar"
          />
        </>
      )}
    </>
  );
}

/** Write what a stage does, as `Training: step 120 of 240`, `Preparing: finding similar papers`. */
export function doingOf({ stage, doing, step = null, steps = null }: NonNullable<Run["progress"]>) {
  const name = nameOf(stage);
  const of = steps === null ? "" : ` of ${whole(steps)}`;
  if (doing === "done") return `${name} is done; the next stage begins`;
  if (step === null) return doing ? `${name}: ${doing}` : name;
  const counted = `${whole(step)}${of}`;
  return stage === "train" ? `${name}: step ${counted}` : `${name}: ${doing}, ${counted}`;
}
