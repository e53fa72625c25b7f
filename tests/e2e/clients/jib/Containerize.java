import com.google.cloud.tools.jib.api.Containerizer;
import com.google.cloud.tools.jib.api.ImageReference;
import com.google.cloud.tools.jib.api.Jib;
import com.google.cloud.tools.jib.api.JibContainer;
import com.google.cloud.tools.jib.api.JibContainerBuilder;
import com.google.cloud.tools.jib.api.RegistryImage;
import com.google.cloud.tools.jib.api.buildplan.AbsoluteUnixPath;
import com.google.cloud.tools.jib.api.buildplan.ImageFormat;
import java.nio.file.Path;
import java.util.List;

/**
 * Builds an image with jib-core and pushes it: Containerize BASE TARGET FILE CACHE USER PASSWORD [REGISTRY MIRROR]
 *
 * <p>BASE is "scratch", or pulled with the same login; FILE is what is added to it; REGISTRY is asked by MIRROR.
 */
class Containerize {
  public static void main(String[] arguments) throws Exception {
    String base = arguments[0];
    String user = arguments[4];
    String password = arguments[5];
    Path cache = Path.of(arguments[3]);
    boolean mirrored = arguments.length > 6;
    JibContainerBuilder builder;
    if (base.equals("scratch")) {
      builder = Jib.fromScratch();
    } else {
      // A mirror is nobody's but the registry's, and gets no login.
      RegistryImage image = RegistryImage.named(ImageReference.parse(base));
      builder = Jib.from(mirrored ? image : image.addCredential(user, password));
    }
    Containerizer to = Containerizer
        .to(RegistryImage.named(ImageReference.parse(arguments[1])).addCredential(user, password))
        .setBaseImageLayersCache(cache.resolve("base"))
        .setApplicationLayersCache(cache.resolve("application"))
        .setToolName("dockgate-e2e");
    if (mirrored) {
      to.addRegistryMirrors(arguments[6], List.of(arguments[7]));
    }
    JibContainer pushed = builder
        .addLayer(List.of(Path.of(arguments[2])), AbsoluteUnixPath.get("/jib"))
        .setFormat(ImageFormat.OCI)
        .containerize(to);
    System.out.println(pushed.getDigest());
    System.exit(0);
  }
}
