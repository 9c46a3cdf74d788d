import { ago, fullDate } from "../format";

/** How long ago something was; the exact time is in its title. */
export function Ago({ iso }: { iso: string }) {
  return (
    <time dateTime={iso} title={fullDate(iso)}>
      {ago(iso)}
    </time>
  );
}
