#!/usr/bin/env node
// Checked in, so that npm can link it before the first build.
import "../dist/lib/command.js";
