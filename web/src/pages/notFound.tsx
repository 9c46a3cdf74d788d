import { Link } from "react-router";

import { Page } from "../components/page";

export function NotFoundPage() {
  return (
    <Page title="No such page" headline="The address is mistyped, or its page is gone.">
      <p>
        <Link to="/runs">Go to your runs</Link>
      </p>
    </Page>
  );
}
