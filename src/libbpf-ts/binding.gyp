{
  "targets": [
    {
      # gyp strips a leading "lib" from a target's name, so the file would not be called what this says.
      "target_name": "bpf_native",
      "sources": [
        "native/addon.cc",
        "native/btf.cc",
        "native/interface.cc",
        "native/link.cc",
        "native/log.cc",
        "native/map.cc",
        "native/object.cc",
        "native/pin.cc",
        "native/probe.cc",
        "native/program.cc",
        "native/ring_buffer.cc"
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=9",
        "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        # A worker thread that is being terminated can take no exception: drop it instead of ending the process.
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "<!@(pkg-config --cflags libbpf)"],
      "cflags_cc": ["-std=gnu++17", "-fno-exceptions"],
      "libraries": ["<!@(pkg-config --libs libbpf)"]
    }
  ]
}
