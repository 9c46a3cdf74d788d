interface Props {
  label: string;
  value: number;
  most: number;
  /** Writes a value, as `bytes`. */
  format: (value: number) => string;
}

/** How much of something is used, as a bar and in words. */
export function Meter({ label, value, most, format }: Props) {
  const share = most > 0 ? Math.min(1, value / most) : 0;
  const words = `${format(value)} of ${format(most)}`;
  return (
    <div className="meter">
      <span>{label}</span>
      <span>{words}</span>
      <Bar label={label} share={share} words={words} as="meter" />
    </div>
  );
}

interface BarProps {
  label: string;
  share: number;
  words: string;
  as: "meter" | "progressbar";
}

export function Bar({ label, share, words, as }: BarProps) {
  return (
    <div
      className={share > 0.9 && as === "meter" ? "bar is-full" : "bar"}
      role={as}
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(100 * share)}
      aria-valuetext={words}
    >
      <div style={{ width: `${100 * share}%` }} />
    </div>
  );
}
