// swift-tools-version: 6.2
import PackageDescription

/// Set by deploy/fuzz: builds our own code for libFuzzer and AddressSanitizer, and the fuzzers.
let isFuzzing = Context.environment["LORRY_FUZZ"] != nil

let lorrySettings: [SwiftSetting] =
    [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .treatAllWarnings(as: .error),
    ] + (isFuzzing ? [.unsafeFlags(["-sanitize=fuzzer,address"])] : [])

/// Fuzzers hardly compute: kernels are compiled for them in a hurry, which takes minutes less.
let kernelSettings: [CSetting] = [
    .treatAllWarnings(as: .error),
    .unsafeFlags([isFuzzing ? "-O1" : "-O3", "-ffp-contract=off"]),
]

/// Adds a library target of our own, with its test target.
func library(
    _ name: String,
    _ dependencies: [Target.Dependency],
    testDependencies: [Target.Dependency] = [],
    resources: [Resource]? = nil
) -> [Target] {
    [
        .target(name: name, dependencies: dependencies, swiftSettings: lorrySettings),
        .testTarget(
            name: "\(name)Tests",
            dependencies: [.byName(name: name)] + testDependencies,
            resources: resources,
            swiftSettings: lorrySettings
        ),
    ]
}

func system(_ name: String, pkgConfig: String, apt: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([apt])])
}

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHTTP1", package: "swift-nio"),
    .product(name: "NIOTLS", package: "swift-nio"),
    .product(name: "NIOSSL", package: "swift-nio-ssl"),
    .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
]
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let httpTypes: Target.Dependency = .product(name: "HTTPTypes", package: "swift-http-types")
let lifecycle: Target.Dependency = .product(
    name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals: Target.Dependency = .product(
    name: "UnixSignals", package: "swift-service-lifecycle")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let metrics: Target.Dependency = .product(name: "Metrics", package: "swift-metrics")
let coreMetrics: Target.Dependency = .product(name: "CoreMetrics", package: "swift-metrics")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let grdb: Target.Dependency = .product(name: "GRDB", package: "GRDB.swift")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")
let argumentParser: Target.Dependency = .product(
    name: "ArgumentParser", package: "swift-argument-parser")

var targets: [Target] = [
    system("COpenBLAS", pkgConfig: "openblas", apt: "libopenblas-dev"),
    system("CNghttp2", pkgConfig: "libnghttp2", apt: "libnghttp2-dev"),
    system("CZlib", pkgConfig: "zlib", apt: "zlib1g-dev"),
    system("CPCRE2", pkgConfig: "libpcre2-8", apt: "libpcre2-dev"),
    system("CXXHash", pkgConfig: "libxxhash", apt: "libxxhash-dev"),
    .target(name: "CKernels", cSettings: kernelSettings),
    // Of tests only.
    .target(
        name: "CAllocationCounter", path: "Tests/CAllocationCounter",
        cSettings: [.treatAllWarnings(as: .error)]),
    .target(
        name: "CraftedArchives", dependencies: ["CZlib"], path: "Tests/CraftedArchives",
        swiftSettings: lorrySettings),
    .target(
        name: "RawTraffic", dependencies: nio, path: "Tests/RawTraffic",
        swiftSettings: lorrySettings),
    .executableTarget(
        name: "lorry",
        dependencies: [
            "LorryAPI", "LorryHTTP", "LorryRegistry", "LorryText", "LorryEngine", "LorryModel",
            "LorryTensor", "LorryMetrics", "LorryConfiguration", "LorrySynth", "LorryBench",
            argumentParser, yams, logging, metrics, lifecycle, signals, hummingbird, "CNghttp2",
            "CZlib", "CPCRE2", "CXXHash", "COpenBLAS",
        ] + nio,
        swiftSettings: lorrySettings
    ),
    .testTarget(
        name: "lorryTests",
        dependencies: [
            "lorry", "CraftedArchives", "RawTraffic", "LorryRegistry", grdb, logging,
        ] + nio,
        exclude: ["Fixtures"],
        swiftSettings: lorrySettings
    ),
]
targets += library("LorryTensor", ["CKernels", "COpenBLAS"], testDependencies: ["COpenBLAS"])
targets += library("LorryModel", ["LorryTensor", "CPCRE2", "CXXHash"])
targets += library(
    "LorryEngine", ["LorryModel", "LorryTensor", logging],
    testDependencies: ["LorryModel", "LorryTensor", "CAllocationCounter"])
targets += library(
    "LorryText", ["CPCRE2", .product(name: "OrderedCollections", package: "swift-collections")],
    resources: [.copy("Fixtures")])
targets += library("LorrySynth", ["LorryModel"])
targets += library(
    "LorryBench", ["LorryEngine", "LorryHTTP", "LorryModel", "LorryTensor", httpTypes] + nio,
    testDependencies: [
        "LorryEngine", "LorryHTTP", "LorryModel", "LorrySynth", "LorryTensor", httpTypes,
    ] + nio)
targets += library("LorryConfiguration", [yams])
targets += library("LorryMetrics", [coreMetrics], testDependencies: [coreMetrics])
targets += library(
    "LorryRegistry", ["LorryModel", "CZlib", grdb, crypto, logging],
    testDependencies: ["CraftedArchives", "LorryModel", grdb, crypto, logging])
targets += library(
    "LorryHTTP",
    ["CNghttp2", "CZlib", hummingbird, httpTypes, lifecycle, logging, metrics] + nio,
    testDependencies: [
        "RawTraffic", hummingbird, httpTypes, lifecycle, logging, metrics,
        .product(name: "MetricsTestKit", package: "swift-metrics"),
    ] + nio)
targets += library(
    "LorryAPI",
    [
        "LorryHTTP", "LorryRegistry", "LorryText", "LorryEngine", "LorryModel", "LorryMetrics",
        hummingbird, httpTypes, logging, metrics, crypto, yams,
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "OrderedCollections", package: "swift-collections"),
    ],
    testDependencies: [
        "LorryHTTP", "LorryRegistry", "LorryText", "LorryEngine", "LorryModel", "LorryMetrics",
        hummingbird, httpTypes, logging, crypto, .product(name: "NIOCore", package: "swift-nio"),
    ])

if isFuzzing {
    targets += [
        .target(name: "CFuzzer", path: "Fuzz/CFuzzer"),
        .executableTarget(
            name: "lorry-fuzz",
            dependencies: [
                "CFuzzer", "LorryAPI", "LorryHTTP", "LorryRegistry", "LorryText", "LorryEngine",
                "LorryModel", "LorryTensor", "LorryMetrics", hummingbird, httpTypes, logging,
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            path: "Fuzz/Sources",
            swiftSettings: lorrySettings,
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])]
        ),
    ]
}

let package = Package(
    name: "lorry",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "lorry", targets: ["lorry"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: targets,
    swiftLanguageModes: [.v6]
)
