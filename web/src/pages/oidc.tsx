import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";

import { post } from "../api/client";
import * as queries from "../api/queries";
import type { Me } from "../api/types";
import { Page } from "../components/page";
import { ProblemNote } from "../components/problemNote";

/** Where the identity provider sends people back: hand over what came with them, once. */
export function OidcPage() {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [words] = useSearchParams();
  const { data, error } = useQuery({
    queryKey: ["oidc", words.toString()],
    queryFn: () =>
      post<{ me: Me; next: string }>("/oidc/session", {
        code: words.get("code") ?? "",
        state: words.get("state") ?? "",
        error: words.get("error") ?? "",
      }),
    retry: false,
    staleTime: Infinity,
    refetchOnReconnect: false,
    refetchOnWindowFocus: false,
  });
  useEffect(() => {
    if (!data) return;
    client.setQueryData(queries.me.queryKey, data.me);
    navigate(data.next, { replace: true });
  }, [client, data, navigate]);
  return (
    <div className="narrow">
      <Page title="Log in">
        <div className="card">
          {error ? <ProblemNote error={error} /> : <p role="status">Logging in…</p>}
          {error && <Link to="/">Back to the log-in</Link>}
        </div>
      </Page>
    </div>
  );
}
