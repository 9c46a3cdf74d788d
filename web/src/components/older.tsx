interface Props {
  query: {
    hasNextPage: boolean;
    isFetchingNextPage: boolean;
    fetchNextPage: () => Promise<unknown>;
  };
}

/** The way to the next page of a list, where there is one. */
export function Older({ query }: Props) {
  if (!query.hasNextPage) return null;
  return (
    <div className="actions start">
      <button
        type="button"
        className="plain"
        disabled={query.isFetchingNextPage}
        onClick={() => query.fetchNextPage()}
      >
        Show older ones
      </button>
    </div>
  );
}
