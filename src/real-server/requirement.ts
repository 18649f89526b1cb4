/**
 * What must hold on a host for it to be a real server, and the changes that make it so. Plain data: it is what the state
 * file consists of.
 */

/** The value must be at least this: arp_ignore and arp_announce get stricter as they grow. */
export interface SysctlRequirement {
  readonly kind: "sysctl";
  /** Path below /proc/sys. Not the dotted name: interfaces may have dots in theirs. */
  readonly path: string;
  readonly minimum: number;
}

export interface AddressRequirement {
  readonly kind: "address";
  readonly interface: string;
  readonly address: string;
}

export interface DecapsulationRequirement {
  readonly kind: "decapsulation";
  readonly interface: string;
  readonly mode: DecapsulationMode;
  /** Where this instance's BPF objects are pinned. */
  readonly pins: string;
  readonly tunnelAddresses: readonly string[];
  readonly virtualAddresses: readonly string[];
}

/** auto: native where the driver takes it, else generic. */
export type DecapsulationMode = "auto" | "native" | "generic";

export type Requirement = SysctlRequirement | AddressRequirement | DecapsulationRequirement;

/** A change that was made to meet a requirement, with what it takes to undo it. */
export type Change =
  | { readonly kind: "sysctl"; readonly path: string; readonly before: number; readonly after: number }
  | AddressRequirement
  | DecapsulationRequirement;

/** Names the thing that a requirement is about and a change touches; equal for both, and across instances. */
export function subject(item: Requirement | Change): string {
  switch (item.kind) {
    case "sysctl":
      return item.path.replaceAll("/", ".");
    case "address":
      return `${item.address}/32 on ${item.interface}`;
    case "decapsulation":
      return `decapsulation on ${item.interface}`;
  }
}

/** One line for people. */
export function describe(requirement: Requirement): string {
  switch (requirement.kind) {
    case "sysctl":
      return `${subject(requirement)} at least ${requirement.minimum}`;
    case "address":
      return subject(requirement);
    case "decapsulation":
      return (
        `IPIP to ${requirement.tunnelAddresses.join(", ")} is unwrapped on ${requirement.interface} ` +
        `for ${requirement.virtualAddresses.join(", ")}`
      );
  }
}
