import { ModelError } from "../../src/model/index.js";

/** What an input is refused for; nothing where it is not. */
export function violationsOf(
  validate: () => unknown,
): { code: string; field: string; value: unknown; allowed: string }[] {
  try {
    validate();
  } catch (error) {
    if (error instanceof ModelError) {
      return error.violations.map(({ code, field, value, allowed }) => ({ code, field, value, allowed }));
    }
    throw error;
  }
  return [];
}
