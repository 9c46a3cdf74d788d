import { TextField } from "./textField";

/** The least that the server takes. */
const LEAST = 10;

export function NewPassword({ value, onText }: { value: string; onText: (text: string) => void }) {
  return (
    <TextField
      label="New password"
      type="password"
      autoComplete="new-password"
      minLength={LEAST}
      required
      help={`At least ${LEAST} characters; a few words are easier to keep than signs.`}
      value={value}
      onText={onText}
    />
  );
}
