# Installs crisol on Windows:
#
#   irm https://github.com/crisol-ml/crisol/releases/latest/download/install.ps1 | iex
#
# The program goes to %LOCALAPPDATA%\Programs\crisol, which is added to the user's PATH.
#   $env:CRISOL_VERSION = "0.1.0"      another version than the latest
#   $env:CRISOL_INSTALL_DIR = "DIR"    another folder for the program
#   $env:CRISOL_DOWNLOAD_URL = "URL"   another place with the archives and their sums
# To uninstall, delete the folder and its entry in PATH.
& {
    $ErrorActionPreference = "Stop"
    # Progress bars make downloads many times slower in Windows PowerShell.
    $ProgressPreference = "SilentlyContinue"

    # 64-bit Arm runs x86-64 programs.
    if (-not [Environment]::Is64BitOperatingSystem) {
        throw "install.ps1: there is no program for 32-bit Windows"
    }
    $name = "crisol-x86_64-pc-windows-msvc"
    $releases = "https://github.com/crisol-ml/crisol/releases"
    $from = if ($env:CRISOL_DOWNLOAD_URL) {
        $env:CRISOL_DOWNLOAD_URL
    } elseif ($env:CRISOL_VERSION) {
        "$releases/download/v$($env:CRISOL_VERSION -replace '^v', '')"
    } else {
        "$releases/latest/download"
    }
    $bin = if ($env:CRISOL_INSTALL_DIR) {
        $env:CRISOL_INSTALL_DIR
    } else {
        Join-Path $env:LOCALAPPDATA "Programs\crisol"
    }

    $work = Join-Path ([IO.Path]::GetTempPath()) ([IO.Path]::GetRandomFileName())
    New-Item -ItemType Directory $work | Out-Null
    try {
        $archive = Join-Path $work "$name.zip"
        Write-Output "Downloading $name.zip"
        Invoke-WebRequest -UseBasicParsing "$from/$name.zip" -OutFile $archive
        Invoke-WebRequest -UseBasicParsing "$from/$name.zip.sha256" -OutFile "$archive.sha256"
        $sum = ((Get-Content "$archive.sha256" -Raw) -split "\s+")[0]
        if ((Get-FileHash $archive -Algorithm SHA256).Hash -ne $sum) {
            throw "install.ps1: the archive is not the one of the release (its sha256 sum " +
                "differs); try again"
        }
        Expand-Archive $archive $work
        New-Item -ItemType Directory -Force $bin | Out-Null
        Copy-Item (Join-Path $work "$name\*") $bin -Recurse -Force
    } finally {
        Remove-Item $work -Recurse -Force
    }

    $version = & (Join-Path $bin "crisol.exe") -V
    Write-Output "$version is in $bin. Try: crisol run"
    $path = [Environment]::GetEnvironmentVariable("Path", "User")
    if (($path -split ";") -notcontains $bin) {
        [Environment]::SetEnvironmentVariable("Path", "$path;$bin".TrimStart(";"), "User")
        Write-Output "$bin was added to PATH: open a new terminal."
    }
}
