import { useQuery } from "@tanstack/react-query";
import { useParams } from "react-router";

import * as queries from "../api/queries";
import { Loaded } from "../components/loaded";
import { RunView } from "../components/runView";

/** One run, live while it runs. */
export function RunPage() {
  const { id = "" } = useParams();
  const run = useQuery(queries.run(id));
  return (
    <Loaded query={run} what="the run">
      {(known) => <RunView key={id} known={known} />}
    </Loaded>
  );
}
