import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";

import * as queries from "../api/queries";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { RunView } from "../components/runView";

/** The one run of `citeflow run --open`, which needs no log-in; `?run=` names it where it is known. */
export function LivePage() {
  const [words] = useSearchParams();
  const id = words.get("run") ?? "";
  const all = useInfiniteQuery({ ...queries.runs("", 1), enabled: id === "" });
  const one = useQuery({ ...queries.run(id), enabled: id !== "" });
  if (id) {
    return (
      <Loaded query={one} what="the run">
        {(run) => <RunView known={run} isAlone />}
      </Loaded>
    );
  }
  return (
    <Loaded query={all} what="the run">
      {([run]) =>
        run ? (
          <RunView key={run.id} known={run} isAlone />
        ) : (
          <Empty title="Nothing runs here yet">
            <p>
              The page shows the run as soon as <code>citeflow run</code> has begun it.
            </p>
          </Empty>
        )
      }
    </Loaded>
  );
}
