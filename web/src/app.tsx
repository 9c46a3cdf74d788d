import { useQuery } from "@tanstack/react-query";
import { Navigate, Route, Routes, useSearchParams } from "react-router";

import * as queries from "./api/queries";
import type { Me } from "./api/types";
import { Boundary } from "./components/boundary";
import { Loaded } from "./components/loaded";
import { Shell } from "./components/shell";
import { AdminPage } from "./pages/admin";
import { ComparePage } from "./pages/compare";
import { EnvironmentPage } from "./pages/environment";
import { LivePage } from "./pages/live";
import { LogInPage } from "./pages/login";
import { ModelsPage } from "./pages/models";
import { NewTrainingPage } from "./pages/newTraining";
import { NotFoundPage } from "./pages/notFound";
import { OidcPage } from "./pages/oidc";
import { PasswordPage } from "./pages/password";
import { RunPage } from "./pages/run";
import { RunsPage } from "./pages/runs";
import { SetUpPage } from "./pages/setup";
import { TryPage } from "./pages/try";

/** The pages by their addresses: those of one's own session, and the three that need none. */
export function App() {
  return (
    <Routes>
      <Route path="/live" element={<Open page={<LivePage />} isAlone />} />
      <Route path="/setup" element={<Open page={<SetUpPage />} />} />
      <Route path="/oidc" element={<Open page={<OidcPage />} />} />
      <Route path="*" element={<WithSession />} />
    </Routes>
  );
}

function Open({ page, isAlone }: { page: React.ReactNode; isAlone?: boolean }) {
  return (
    <Shell me={null} isAlone={isAlone}>
      <Boundary>{page}</Boundary>
    </Shell>
  );
}

function WithSession() {
  const me = useQuery(queries.me);
  if (me.data) return <Pages me={me.data} />;
  return (
    <Shell me={null}>
      <Loaded query={me} what="the page">
        {() => <LogInPage />}
      </Loaded>
    </Shell>
  );
}

function Pages({ me }: { me: Me }) {
  return (
    <Shell me={me}>
      <Boundary>
        <Routes>
          <Route
            index
            element={<Navigate replace to={me.environment ? "/runs" : "/environment"} />}
          />
          <Route path="login" element={<Navigate replace to="/" />} />
          <Route path="environment" element={<EnvironmentPage />} />
          <Route path="new" element={<NewTraining />} />
          <Route path="runs" element={<RunsPage />} />
          <Route path="runs/compare" element={<ComparePage />} />
          <Route path="runs/:id" element={<RunPage />} />
          <Route path="models" element={<ModelsPage />} />
          <Route path="try" element={<TryPage />} />
          <Route path="try/:model" element={<TryPage />} />
          <Route path="password" element={<PasswordPage />} />
          {me.role === "admin" && <Route path="admin" element={<AdminPage me={me} />} />}
          <Route path="*" element={<NotFoundPage />} />
        </Routes>
      </Boundary>
    </Shell>
  );
}

/** The form begins anew for each run that it is filled in from. */
function NewTraining() {
  const [words] = useSearchParams();
  const from = words.get("from") ?? "";
  return <NewTrainingPage key={from} from={from} />;
}
