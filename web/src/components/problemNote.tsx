import { Problem } from "../api/client";
import { sentence } from "../format";

/** Why something did not work, what to do about it, and a way to try again. */
export function ProblemNote({ error, again }: { error: unknown; again?: () => void }) {
  if (!error) return null;
  const { message, hint } =
    error instanceof Problem ? error : { message: "this page has a fault of its own", hint: "" };
  return (
    <div className="problem" role="alert">
      <p>
        {sentence(message)}
        {hint && <span>{sentence(hint)}</span>}
      </p>
      {again && (
        <button type="button" className="plain" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}
