/** What the connections of a real server get that is taken out of its service. */
import type { RemovedConnections } from "../model/index.js";
import type { InstalledRealServer } from "./inventory.js";
import { RealServerState } from "./sluice.bpf.js";

const STATES: Readonly<Record<RemovedConnections, RealServerState>> = {
  drop: RealServerState.REAL_REMOVED,
  keep: RealServerState.REAL_DRAINING,
  reset: RealServerState.REAL_RESET,
};

/**
 * The state that says so.
 *
 * @param choice the service's; undefined where it leaves that to the setting
 * @param expireNodestConn the setting expire_nodest_conn
 */
export function removedState(choice: RemovedConnections | undefined, expireNodestConn: number): RealServerState {
  return STATES[choice ?? (expireNodestConn === 0 ? "drop" : "reset")];
}

/**
 * What a service must have chosen, seen from its real servers. Where they have what the setting gives them it may have left it to the
 * setting, and is taken to have.
 */
export function choiceOf(
  realServers: readonly Pick<InstalledRealServer, "name" | "standing" | "state">[],
  expireNodestConn: number,
): RemovedConnections | undefined {
  const byDefault = removedState(undefined, expireNodestConn);
  const active = new Set(realServers.filter(({ standing }) => standing === "active").map(({ name }) => name));
  for (const { name, state } of realServers) {
    // One that is superseded drains whatever the choice.
    if (state !== byDefault && !active.has(name)) {
      const choice = (Object.keys(STATES) as RemovedConnections[]).find((other) => STATES[other] === state);
      if (choice !== undefined) {
        return choice;
      }
    }
  }
  return undefined;
}
