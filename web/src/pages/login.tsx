import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { useLocation } from "react-router";

import { post } from "../api/client";
import * as queries from "../api/queries";
import type { Me } from "../api/types";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";

/** Log in; the address stays, so that one comes to where one wanted to. */
export function LogInPage() {
  const client = useQueryClient();
  const setup = useQuery(queries.setup());
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const logIn = useMutation({
    mutationFn: () => post<Me>("/session", { name, password }),
    onSuccess: (me) => client.setQueryData(queries.me.queryKey, me),
    onError: () => setPassword(""),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    logIn.mutate();
  };

  if (setup.data?.first_user) return <NoUserYet />;
  return (
    <div className="narrow">
      <Page title="Log in" headline="Train, watch and compare models that find missing citations.">
        <form className="card" onSubmit={submit}>
          <TextField
            label="Name"
            autoComplete="username"
            autoCapitalize="off"
            spellCheck={false}
            required
            value={name}
            onText={setName}
          />
          <TextField
            label="Password"
            type="password"
            autoComplete="current-password"
            required
            value={password}
            onText={setPassword}
          />
          <ProblemNote error={logIn.error} />
          <button type="submit" className="wide" disabled={logIn.isPending}>
            {logIn.isPending ? "Logging in…" : "Log in"}
          </button>
          {setup.data?.oidc && <LogInElsewhere provider={setup.data.oidc} />}
        </form>
        <p className="remark">
          No account yet, or the password is lost? An admin of this server makes you a link to set
          one.
        </p>
        {setup.data && <p className="remark">citeflow {setup.data.version}</p>}
      </Page>
    </div>
  );
}

/** Go to the page of the identity provider, which sends people back to `OidcPage`. */
function LogInElsewhere({ provider }: { provider: string }) {
  const { pathname, search } = useLocation();
  const begin = useMutation({
    mutationFn: () => post<{ url: string }>("/oidc/login", { next: pathname + search }),
    onSuccess: ({ url }) => window.location.assign(url),
  });
  return (
    <>
      <ProblemNote error={begin.error} />
      <button
        type="button"
        className="plain wide"
        disabled={begin.isPending || begin.isSuccess}
        onClick={() => begin.mutate()}
      >
        Log in with {provider}
      </button>
    </>
  );
}

function NoUserYet() {
  return (
    <div className="narrow">
      <Page title="Set up citeflow" headline="Nobody has an account here yet.">
        <div className="card">
          <p>
            Open the link that <code>citeflow platform</code> printed when it started. It makes the
            first account, which is an admin’s; only who can read that terminal has it.
          </p>
        </div>
      </Page>
    </div>
  );
}
