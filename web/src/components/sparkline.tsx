const WIDTH = 96;
const HEIGHT = 28;
const EDGE = 3;

/** A curve without axes, for a row of a table; the score beside it says the end in words. */
export function Sparkline({ values }: { values: number[] }) {
  if (values.length < 2) return null;
  const low = Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const points = values.map((value, index) => [
    EDGE + (index / (values.length - 1)) * (WIDTH - 2 * EDGE),
    HEIGHT - EDGE - ((value - low) / range) * (HEIGHT - 2 * EDGE),
  ]);
  const [x, y] = points.at(-1)!;
  return (
    <svg className="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <polyline points={points.map((point) => point.join(",")).join(" ")} />
      <circle cx={x} cy={y} r="2.5" />
    </svg>
  );
}
