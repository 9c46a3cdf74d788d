import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";

import { post } from "../api/client";
import * as queries from "../api/queries";
import type { Me } from "../api/types";
import { Loaded } from "../components/loaded";
import { NewPassword } from "../components/newPassword";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";

/** Where the link of the first account, or of one that an admin made, leads: choose a password. */
export function SetUpPage() {
  const [words] = useSearchParams();
  const token = words.get("token") ?? "";
  const setup = useQuery(queries.setup(token));
  return (
    <div className="narrow">
      <Loaded query={setup} what="the page">
        {({ name, first_user: isFirst }) =>
          token && (name || isFirst) ? <SetUp token={token} known={name} /> : <NoToken />
        }
      </Loaded>
    </div>
  );
}

function NoToken() {
  return (
    <Page title="This link does not work" headline="It has been used, is too old, or is not whole.">
      <div className="card">
        <p>
          Ask an admin for another one. That of the first account stands where{" "}
          <code>citeflow platform</code> was started.
        </p>
        <p>
          <Link to="/">Log in</Link>, if you have a password.
        </p>
      </div>
    </Page>
  );
}

/** `known` is the name of the account; the first one chooses it. */
function SetUp({ token, known }: { token: string; known: string }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState(known);
  const [password, setPassword] = useState("");
  const setUp = useMutation({
    mutationFn: () => post<Me>("/setup", { token, name, password }),
    onSuccess: (me) => {
      client.setQueryData(queries.me.queryKey, me);
      navigate("/environment", { replace: true });
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setUp.mutate();
  };
  return (
    <Page
      title={known ? `Welcome, ${known}` : "Set up citeflow"}
      headline={
        known
          ? "Choose a password, and you are in."
          : "The first account is an admin’s: it makes those of the others."
      }
    >
      <form className="card" onSubmit={submit}>
        <TextField
          label="Name"
          autoComplete="username"
          autoCapitalize="off"
          spellCheck={false}
          required
          readOnly={known !== ""}
          help={known ? undefined : "Small letters, digits and hyphens."}
          value={name}
          onText={setName}
        />
        <NewPassword value={password} onText={setPassword} />
        <ProblemNote error={setUp.error} />
        <button type="submit" className="wide" disabled={setUp.isPending}>
          {known ? "Set the password" : "Make the account"}
        </button>
      </form>
    </Page>
  );
}
