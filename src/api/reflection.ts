import { type EnumTypeDefinition, loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { protoPath as healthProto } from "grpc-health-check";
import { FILE_DESCRIPTORS } from "./gen/file-descriptors.js";

/** grpc.reflection v1 and v1alpha over our own files and grpc.health.v1. */
export function reflection(): ReflectionService {
  // ReflectionService takes what proto-loader makes of source files, but looks at nothing of it other than the files' descriptors,
  // which is the one member that all kinds of definition have.
  const ours: EnumTypeDefinition = {
    format: "Protocol Buffer 3 EnumDescriptorProto",
    type: {},
    fileDescriptorProtos: FILE_DESCRIPTORS.map((descriptor) => Buffer.from(descriptor, "base64")),
  };
  const definitions: PackageDefinition = { ...loadSync(healthProto), ours };
  return new ReflectionService(definitions);
}
