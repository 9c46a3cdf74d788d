import { Component, type ReactNode } from "react";

/** Where a page breaks, say so and offer a way out, rather than show nothing. */
export class Boundary extends Component<{ children: ReactNode }, { isBroken: boolean }> {
  override state = { isBroken: false };

  static getDerivedStateFromError() {
    return { isBroken: true };
  }

  override render() {
    if (!this.state.isBroken) return this.props.children;
    return (
      <div className="card empty" role="alert">
        <h1>This page has a fault of its own</h1>
        <p>Your runs and files are not touched by it.</p>
        <div className="actions">
          <button type="button" onClick={() => location.reload()}>
            Load it again
          </button>
          <a className="button plain" href="/">
            Go to the start
          </a>
        </div>
      </div>
    );
  }
}
