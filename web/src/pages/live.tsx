import { useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";

import * as queries from "../api/queries";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { RunView } from "../components/runView";

/** The one run of `citeflow run --open`, which needs no log-in; `?run=` names it. */
export function LivePage() {
  const [words] = useSearchParams();
  const id = words.get("run") ?? "";
  // Asked for once: the events bring what is newer, and the server ends with the command.
  const one = useQuery({ ...queries.run(id), enabled: id !== "", staleTime: Infinity });
  if (!id) {
    return (
      <Empty title="No run is named">
        <p>
          Open the address that <code>citeflow run --open</code> has printed.
        </p>
      </Empty>
    );
  }
  return (
    <Loaded query={one} what="the run">
      {(run) => <RunView known={run} isAlone />}
    </Loaded>
  );
}
