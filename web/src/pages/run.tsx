import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";

import { Problem } from "../api/client";
import * as queries from "../api/queries";
import { Loaded } from "../components/loaded";
import { Page } from "../components/page";
import { RunView } from "../components/runView";

/** One run, live while it runs. */
export function RunPage() {
  const { id = "" } = useParams();
  const run = useQuery(queries.run(id));
  if (run.error instanceof Problem && run.error.status === 404) return <NoSuchRun />;
  return (
    <Loaded query={run} what="the run">
      {(known) => <RunView key={id} known={known} />}
    </Loaded>
  );
}

function NoSuchRun() {
  return (
    <Page title="No such run" headline="The address is mistyped, or the run is deleted.">
      <p>
        <Link to="/runs">Go to your runs</Link>
      </p>
    </Page>
  );
}
