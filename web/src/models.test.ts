import { expect, test } from "vitest";

import type { Model } from "./api/types";
import { answering, CHAMPION } from "./models";

const CODE = "has code of its own";

const model = (deployed: number | null, ...aliases: string[][]) =>
  ({
    name: "synthetic",
    versions: aliases.map((each, index) => ({
      version: aliases.length - index,
      aliases: each.filter((alias) => alias !== CODE),
      has_code: each.includes(CODE),
    })),
    deployment: deployed === null ? null : { version: deployed },
  }) as unknown as Model;

test.each([
  ["the deployed version", model(1, [], [CHAMPION], []), 1],
  ["else the champion", model(null, ["candidate"], [CHAMPION], []), 2],
  ["else the newest", model(null, ["candidate"], [], []), 3],
  ["else none", model(null), undefined],
  ["none with code", model(null, [CODE, CHAMPION], ["candidate"], [CODE]), 2],
  ["none where all have code", model(null, [CODE], [CODE, CHAMPION]), undefined],
])("answering is %s", (_, given, version) => expect(answering(given)?.version).toBe(version));
