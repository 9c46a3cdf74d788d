import { expect, test } from "vitest";

import type { Model } from "./api/types";
import { answering, CHAMPION } from "./models";

const model = (deployed: number | null, ...aliases: string[][]) =>
  ({
    name: "synthetic",
    versions: aliases.map((each, index) => ({ version: aliases.length - index, aliases: each })),
    deployment: deployed === null ? null : { version: deployed },
  }) as unknown as Model;

test.each([
  ["the deployed version", model(1, [], [CHAMPION], []), 1],
  ["else the champion", model(null, ["candidate"], [CHAMPION], []), 2],
  ["else the newest", model(null, ["candidate"], [], []), 3],
  ["else none", model(null), undefined],
])("answering is %s", (_, given, version) => expect(answering(given)?.version).toBe(version));
