import { useEffect, useState } from "react";

import { ago, duration, fullDate } from "../format";

/** How long ago something was; the exact time is in its title. */
export function Ago({ iso }: { iso: string }) {
  return (
    <time dateTime={iso} title={fullDate(iso)}>
      {ago(iso)}
    </time>
  );
}

/** For how long something has lasted, counted on each second. */
export function Lasting({ since }: { since: string }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return <time dateTime={since}>{duration((now - Date.parse(since)) / 1000)}</time>;
}
