import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { Link, useSearchParams } from "react-router";

import * as queries from "../api/queries";
import type { Comparison, Run } from "../api/types";
import { StateBadge } from "../components/badge";
import { Chart } from "../components/chart";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { Page } from "../components/page";
import { bestOf, isOfOneDataset } from "../comparison";
import { figureName, score, sentence, short, signed, whole } from "../format";

const NONE: ReadonlySet<number> = new Set();

/** Runs beside each other: what they reached, what they were made with, and their curves. */
export function ComparePage() {
  const [words] = useSearchParams();
  const ids = (words.get("ids") ?? "").split(",").filter(Boolean);
  const comparison = useQuery(queries.comparison(ids));
  return (
    <Page
      title="Compare"
      headline="What the runs reached, where they differ, and how they came there."
      actions={
        <Link className="button plain" to="/runs">
          Other runs
        </Link>
      }
    >
      {ids.length < 2 ? (
        <Empty title="Nothing to compare yet">
          <p>Select two runs in the list.</p>
          <Link className="button" to="/runs">
            Go to the runs
          </Link>
        </Empty>
      ) : (
        <Loaded query={comparison} what="the comparison">
          {(made) => (
            <>
              {!isOfOneDataset(made.runs) && (
                <p className="remark">
                  These runs are on different data: their scores cannot be compared.
                </p>
              )}
              <Metrics comparison={made} />
              <Settings comparison={made} />
              <Curves comparison={made} />
            </>
          )}
        </Loaded>
      )}
    </Page>
  );
}

function Heads({ runs }: { runs: Run[] }) {
  return runs.map((run) => (
    <th key={run.id} scope="col" className="number">
      <Link to={`/runs/${run.id}`}>{run.name}</Link>
    </th>
  ));
}

function Metrics({ comparison: { rows, runs } }: { comparison: Comparison }) {
  const isComparable = isOfOneDataset(runs);
  const isPair = isComparable && runs.length === 2;
  return (
    <div className="card table-card">
      <table>
        <caption>What they reached</caption>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            <Heads runs={runs} />
            {isPair && (
              <th scope="col" className="number">
                Difference
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">State</th>
            {runs.map((run) => (
              <td key={run.id} className="number">
                <StateBadge run={run} />
              </td>
            ))}
            {isPair && <td className="number">–</td>}
          </tr>
          {rows.map((row) => {
            const best = isComparable ? bestOf(row) : NONE;
            const [first, second] = row.values;
            return (
              <tr key={row.metric}>
                <th scope="row">
                  {sentence(figureName(row.metric))}
                  <small>{row.help}</small>
                </th>
                {row.values.map((value, index) => (
                  <td key={runs[index]?.id} className={best.has(index) ? "number best" : "number"}>
                    {value === null ? "–" : score(value)}
                    {best.has(index) && <span className="unseen"> (the best)</span>}
                  </td>
                ))}
                {isPair && (
                  <td className="number">
                    {typeof first === "number" && typeof second === "number"
                      ? signed(second - first)
                      : ""}
                  </td>
                )}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Settings({ comparison: { settings, runs } }: { comparison: Comparison }) {
  if (!settings.length) return <p className="remark">They were made with the same settings.</p>;
  return (
    <div className="card table-card section">
      <table>
        <caption>Where their settings differ</caption>
        <thead>
          <tr>
            <th scope="col">Setting</th>
            <Heads runs={runs} />
          </tr>
        </thead>
        <tbody>
          {settings.map(({ name, values }) => (
            <tr key={name}>
              <th scope="row">
                <code>{name}</code>
              </th>
              {values.map((value, index) => (
                <td key={runs[index]?.id} className="number">
                  {value === null ? "–" : String(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Curves({ comparison: { series, runs } }: { comparison: Comparison }) {
  const charts = useMemo(() => {
    const metrics = [...new Set(series.map((each) => each.metric))];
    const nameOf = new Map(runs.map((run) => [run.id, run.name]));
    return metrics.map((metric) => ({
      metric,
      series: series
        .filter((each) => each.metric === metric)
        .map(({ run, points }) => ({ name: nameOf.get(run) ?? run, points })),
    }));
  }, [series, runs]);
  if (!charts.length) return null;
  return (
    <section className="section">
      <h2>How they came there</h2>
      <div className="grid">
        {charts.map(({ metric, series: shown }) => (
          <Chart
            key={metric}
            title={sentence(figureName(metric))}
            along="step"
            series={shown}
            format={short}
            formatX={whole}
          />
        ))}
      </div>
    </section>
  );
}
