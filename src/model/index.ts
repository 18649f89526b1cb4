/** Virtual services and real servers as plain immutable data, with their validation. Imports nothing else of Sluice. */
export * from "./address.js";
export * from "./desired-state.js";
export * from "./instance.js";
export * from "./nearest.js";
export * from "./read.js";
export * from "./service.js";
export * from "./statistics.js";
export * from "./violation.js";
