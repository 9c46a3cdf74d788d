import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { useNavigate } from "react-router";

import { post } from "../api/client";
import * as queries from "../api/queries";
import { NewPassword } from "../components/newPassword";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";

/** Change one's own password. */
export function PasswordPage() {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [old, setOld] = useState("");
  const [password, setPassword] = useState("");
  const change = useMutation({
    mutationFn: () => post<void>("/password", { old, new: password }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: queries.me.queryKey });
      navigate("/");
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    change.mutate();
  };

  return (
    <div className="narrow">
      <Page
        title="Change the password"
        headline="You stay logged in here, and are logged out everywhere else."
      >
        <form className="card" onSubmit={submit}>
          <TextField
            label="Present password"
            type="password"
            autoComplete="current-password"
            required
            value={old}
            onText={setOld}
          />
          <NewPassword value={password} onText={setPassword} />
          <ProblemNote error={change.error} />
          <button type="submit" className="wide" disabled={change.isPending}>
            Change it
          </button>
        </form>
      </Page>
    </div>
  );
}
